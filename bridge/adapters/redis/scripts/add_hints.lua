-- Keep a hint for each thing, or none of them. KEYS: the source's base.
-- ARGV: the time in microseconds, how many hints there may be, the things. Answers 1, or 0 if there would be too many.
-- A field is a thing, with the time of its first push and the version of its last one. The field without a name has how
-- many things there are, and the highest version.
local key = KEYS[1] .. ':h'
local head = redis.call('HGET', key, '') or '0 0'
local count, version = string.match(head, '^(%d+) (%d+)$')
count, version = tonumber(count), math.max(tonumber(version) + 1, tonumber(ARGV[1]))
local new = {}
for i = 3, #ARGV do
  if not redis.call('HGET', key, ARGV[i]) then new[ARGV[i]] = true end
end
for _ in pairs(new) do count = count + 1 end
if count > tonumber(ARGV[2]) and next(new) then return 0 end
local now = string.format('%.0f', version)
redis.call('HSET', key, '', string.format('%d ', count) .. now)
for i = 3, #ARGV do
  local known = redis.call('HGET', key, ARGV[i])
  redis.call('HSET', key, ARGV[i], (known and string.match(known, '^(%d+) ') or now) .. ' ' .. now)
end
return 1
