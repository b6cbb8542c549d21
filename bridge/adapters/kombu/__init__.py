"""The broker adapter on kombu: RabbitMQ, Redis and other transports."""
