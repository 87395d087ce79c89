"""The stream: Kafka records in, assessments, state and metrics out."""
