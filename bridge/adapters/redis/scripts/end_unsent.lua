-- End waiting ones unsent. ARGV: now, kind, mute, '1' to add them to the totals; then source, number, topic and recorded time
-- ('' for none) of each. Answers how many there were.
-- The totals: n is their number, a and z the first and the last time, k how many topics there are, and t… the number of each,
-- for 128 topics.
local kind, totals, number = ARGV[2], base .. ':totals', 0
local function add_up(topic, recorded)
  redis.call('HINCRBY', totals, 'n', 1)
  local field = 't' .. topic
  local known = redis.call('HMGET', totals, field, 'k')
  if known[1] or tonumber(known[2] or 0) < 128 then
    redis.call('HINCRBY', totals, field, 1)
    if not known[1] then redis.call('HINCRBY', totals, 'k', 1) end
  end
  if recorded ~= '' then
    local times = redis.call('HMGET', totals, 'a', 'z')
    if not times[1] or tonumber(recorded) < tonumber(times[1]) then redis.call('HSET', totals, 'a', recorded) end
    if not times[2] or tonumber(recorded) > tonumber(times[2]) then redis.call('HSET', totals, 'z', recorded) end
  end
end
for i = 5, #ARGV, 4 do
  local source, seq = ARGV[i], ARGV[i + 1]
  local place = source .. ':' .. seq
  local from = where(place)
  if from == DUE or from == HELD then
    redis.call('ZREM', from, place)
    redis.call('HDEL', TRIES, place)
    local key, offset = bit_of(source, seq)
    redis.call('SETBIT', key, offset, 1)
    if kind == 'muted' then redis.call('SETBIT', filtered_bit_of(source, seq), offset, 1) end
    redis.call('ZADD', unsent_of(source), seq, seq .. ' ' .. kind .. ' ' .. ARGV[1] .. ' ' .. ARGV[3])
    leave(place, ARGV[1])
    redis.call('HDEL', PARTITION, place)
    count(source, 'w', -1)
    count(source, kind == 'muted' and 'f' or 'e', 1)
    if ARGV[4] == '1' then add_up(ARGV[i + 2], ARGV[i + 3]) end
    number = number + 1
  end
end
close_books()
return number
