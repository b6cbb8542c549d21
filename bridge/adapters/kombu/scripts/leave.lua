-- End a consumer: its lease ends, and its messages are requeued. Returns how many.
-- KEYS: the queue's consumers, our unacknowledged messages, our arriving messages, the queue. ARGV: consumer.
redis.call('ZREM', KEYS[1], ARGV[1])
return requeue(KEYS[4], KEYS[2], KEYS[3])
