"""Topic and stance classification of news; knows no Kafka, Faust or Prometheus."""
