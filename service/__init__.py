"""The HTTP side. It validates, stores and answers; it computes nothing and knows neither worker nor torch."""
