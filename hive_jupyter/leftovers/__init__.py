"""What a worker leaves in a project for the user's tools to run; all of it blocks."""
