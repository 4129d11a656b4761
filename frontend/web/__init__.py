"""What API and pages share of HTTP: who asks, protection against forged requests, headers."""
