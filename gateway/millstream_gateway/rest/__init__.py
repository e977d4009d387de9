"""The API under ``/api/v1``: runs, queues and workflows for programs."""
