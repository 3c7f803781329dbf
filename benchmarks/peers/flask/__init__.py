"""The service that most tutorials on Flask write: its development server, and behind gunicorn."""
