-- Totals to tell: those that are open, or what has come since, which is opened. ARGV: id. Answers a hash, empty if there are none.
local open, totals = base .. ':open', base .. ':totals'
local found = redis.call('HGETALL', open)
if #found > 0 then return found end
local next_ones = redis.call('HGETALL', totals)
if #next_ones == 0 then return {} end
redis.call('DEL', totals)
redis.call('HSET', open, 'id', ARGV[1], unpack(next_ones))
return redis.call('HGETALL', open)
