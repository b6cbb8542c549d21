-- Forget hints, apart from those with a further push: they stay, as of that push. KEYS: the source's base.
-- ARGV: thing and version by turns.
local key = KEYS[1] .. ':h'
local gone = 0
for i = 1, #ARGV, 2 do
  local known = redis.call('HGET', key, ARGV[i])
  local version = known and string.match(known, ' (%d+)$')
  if version == ARGV[i + 1] then
    gone = gone + redis.call('HDEL', key, ARGV[i])
  elseif version then
    redis.call('HSET', key, ARGV[i], version .. ' ' .. version)
  end
end
local head = redis.call('HGET', key, '')
if gone > 0 and head then
  local count, version = string.match(head, '^(%d+) (%d+)$')
  redis.call('HSET', key, '', string.format('%d ', math.max(0, tonumber(count) - gone)) .. version)
end
return gone
