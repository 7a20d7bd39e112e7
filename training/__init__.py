"""Jobs that run unattended: retrain, gate, publish, roll back. They import bidml; bidml never imports them."""
