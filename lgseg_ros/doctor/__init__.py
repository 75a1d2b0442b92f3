"""What `lgseg doctor` checks: one small function a check, each giving a Verdict."""
