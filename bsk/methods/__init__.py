"""The training methods, one function each, and the registry that finds them by id or as `module:function`."""
