-- Forget the oldest entries, a step at a time, never unconfirmed ones; answers how many, and whether more are to go.
-- KEYS: the source's base. ARGV: the first number to keep, the greatest step.
local state, journal = KEYS[1] .. ':s', KEYS[1] .. ':j'
local now = redis.call('HMGET', state, 'f', 'r', 'b')
local first = tonumber(now[1] or 1)
local target = math.min(tonumber(ARGV[1]), tonumber(now[2] or 0) + 1)
local cut = math.min(target, first + tonumber(ARGV[2]))
if cut <= first then return {0, 0} end
local before = redis.call('XLEN', journal)
local gone = redis.call('XTRIM', journal, 'MINID', string.format('%d-0', cut))
local bytes = before > 0 and math.floor(tonumber(now[3] or 0) * (before - gone) / before) or 0
redis.call('HSET', state, 'f', string.format('%d', cut), 'b', string.format('%d', bytes))
return {gone, cut < target and 1 or 0}
