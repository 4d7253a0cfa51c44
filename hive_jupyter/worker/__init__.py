"""What runs inside zygote, supervisor and worker; the host never imports it."""
