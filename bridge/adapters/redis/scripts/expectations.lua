-- Return expectations that are due, and note in the index when the next ones are. Expectations lie in small hashes; the
-- index has, for each of these hashes, a time before which nothing in it is due.
-- KEYS: the source's base. ARGV: until when, how many at most. Answers whether there may be more, then field and value by
-- turns.
local index, upto, most = KEYS[1] .. ':e', tonumber(ARGV[1]), tonumber(ARGV[2])
local found = {0}
local shards = redis.call('ZRANGEBYSCORE', index, '-inf', upto, 'LIMIT', 0, 33)
for number, shard in ipairs(shards) do
  if number > 32 or #found > 2 * most then
    found[1] = 1
    break
  end
  local fields = redis.call('HGETALL', index .. ':' .. shard)
  local first = nil
  for i = 1, #fields, 2 do
    local due = tonumber(string.match(fields[i + 1], '^(%w+)'), 36)
    if not first or due < first then first = due end
    if due <= upto then
      if #found > 2 * most then
        found[1] = 1
      else
        found[#found + 1] = fields[i]
        found[#found + 1] = fields[i + 1]
      end
    end
  end
  if first then redis.call('ZADD', index, first, shard) else redis.call('ZREM', index, shard) end
end
return found
