-- Drop the settled marks of a source's numbers below one. ARGV: source, number.
local before = tonumber(ARGV[2])
local chunk = math.floor(before / 65536)
local known = redis.call('HGET', base .. ':low', ARGV[1])
local low = tonumber(known or chunk)
if known then
  redis.call('HDEL', base .. ':low', ARGV[1])
  redis.call('HSET', base .. ':low', ARGV[1], string.format('%d', math.max(chunk, low)))
end
for each = low, chunk - 1 do
  local behind = ARGV[1] .. ':' .. string.format('%d', each)
  redis.call('DEL', base .. ':m:' .. behind, base .. ':f:' .. behind)
end
local key, offset = bit_of(ARGV[1], ARGV[2])
for _, bitmap in ipairs({key, filtered_bit_of(ARGV[1], ARGV[2])}) do
  if redis.call('EXISTS', bitmap) == 1 then
    local whole = math.floor(offset / 8)
    if whole > 0 then redis.call('SETRANGE', bitmap, 0, string.rep('\0', whole)) end
    for each = whole * 8, offset - 1 do redis.call('SETBIT', bitmap, each, 0) end
  end
end
for _, seq in ipairs(redis.call('SMEMBERS', base .. ':x:' .. ARGV[1])) do
  if tonumber(seq) < before then redis.call('SREM', base .. ':x:' .. ARGV[1], seq) end
end
forget_unsent(ARGV[1], '-inf', '(' .. ARGV[2])
return 1
