-- Keep scopes: no bucket of theirs expires sooner than in `ttl`.
-- KEYS: the source's base. ARGV: ttl in ms, scopes.
local ttl = tonumber(ARGV[1])
local function keep(key)
  local left = redis.call('PTTL', key)
  if left >= 0 and left < ttl then redis.call('PEXPIRE', key, ttl) end
end
for i = 2, #ARGV do
  local index = KEYS[1] .. ':i:' .. ARGV[i]
  for _, bucket in ipairs(redis.call('SMEMBERS', index)) do
    keep(KEYS[1] .. ':b:' .. ARGV[i] .. ':' .. bucket)
  end
  keep(index)
end
return 1
