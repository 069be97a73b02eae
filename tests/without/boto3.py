"""In the way of the real one, which only moto needs, the S3 of our tests.

No user of ours has it, but securesystemslib imports it where it is: 0.3 s at the start of every
process.
"""

raise ImportError("boto3 is for moto alone: see tests/s3.py")
