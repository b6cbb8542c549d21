-- Renew a consumer's lease, requeue the messages of consumers whose lease ended, and claim messages.
-- KEYS: the queue's consumers, our unacknowledged messages, our arriving messages, then the queue's lists; the first list
-- gets what is requeued.
-- ARGV: consumer, lease in ms, how many messages at most, the first tag; then the prefixes of the keys of the
-- unacknowledged and of the arriving messages of any consumer.
-- Returns how many messages were requeued, and the claimed ones.
local consumers, unacked, arriving, queue = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local me, ttl, limit, tag = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREM', consumers, me)
redis.call('ZADD', consumers, now + ttl, me)
local returned = 0
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', consumers, '-inf', now)) do
  returned = returned + requeue(queue, ARGV[5] .. dead, ARGV[6] .. dead)
  redis.call('ZREM', consumers, dead)
end
local claimed = {}
for index = 3, #KEYS do
  while #claimed < limit do
    local payload = redis.call('RPOP', KEYS[index])
    if not payload then break end
    redis.call('HSET', unacked, tag + #claimed, payload)
    claimed[#claimed + 1] = payload
  end
end
return {returned, claimed}
