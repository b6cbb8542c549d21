-- Keep an event that came without a position, once for each id; the oldest that are settled make room.
-- ARGV: the source's name, id, the event packed, now, the time before which settled ones are given up. Answers its number.
local known = redis.call('HGET', base .. ':ai', ARGV[2])
if known then return tonumber(known) end
local seq = string.format('%d', redis.call('INCR', base .. ':an'))
redis.call('HSET', base .. ':ai', ARGV[2], seq)
redis.call('HSET', base .. ':ae', seq, ARGV[3])
redis.call('HSET', base .. ':ak', seq, ARGV[2])
redis.call('ZADD', base .. ':at', ARGV[4], seq)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', base .. ':at', '-inf', ARGV[5], 'LIMIT', 0, 10)) do
  if where(ARGV[1] .. ':' .. old) then
    redis.call('ZADD', base .. ':at', ARGV[4], old)
  else
    redis.call('HDEL', base .. ':ai', redis.call('HGET', base .. ':ak', old))
    redis.call('HDEL', base .. ':ae', old)
    redis.call('HDEL', base .. ':ak', old)
    redis.call('ZREM', base .. ':at', old)
    forget_unsent(ARGV[1], old, old)
  end
end
return tonumber(seq)
