"""The REST API as an OpenAPI document, and a page that shows it."""
