-- Move the mark up to which the broker holds everything; never back, and never beyond the journal.
-- The first write is a removal, which a server without memory allows: what is not confirmed is never trimmed.
-- KEYS: the source's base, the lease. ARGV: token and owner, number, how many of them no queue wanted.
local state = KEYS[1] .. ':s'
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
local now = redis.call('HMGET', state, 'c', 'r')
local upto = math.min(tonumber(ARGV[2]), tonumber(now[1] or 0))
if upto <= tonumber(now[2] or 0) then return 0 end
redis.call('HDEL', state, 'r')
redis.call('HSET', state, 'r', string.format('%d', upto))
redis.call('HINCRBY', state, 'u', ARGV[3])
return 1
