"""The REST API under `/v1`, the signed files and the health routes: thin handlers over the domain rooms."""
