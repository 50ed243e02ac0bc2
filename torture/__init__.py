"""What bsk promises to withstand: kills, hostile inputs, full disks, two writers at once, odd situations."""
