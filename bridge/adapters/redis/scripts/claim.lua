-- Claim what is due. ARGV: now, until, limit. Answers the places, and what was tried of each.
local places = redis.call('ZRANGEBYSCORE', DUE, '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
if #places == 0 then return {{}, {}} end
redis.call('ZREM', DUE, unpack(places))
for _, place in ipairs(places) do redis.call('ZADD', DUE, ARGV[2], place) end
return {places, redis.call('HMGET', TRIES, unpack(places))}
