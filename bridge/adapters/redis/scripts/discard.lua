-- End waiting or dead ones unsent. ARGV: now; then source and number of each. Answers how many.
local number = 0
for i = 2, #ARGV, 2 do
  local source, place = ARGV[i], ARGV[i] .. ':' .. ARGV[i + 1]
  local from = where(place)
  if from then
    redis.call('ZREM', from, place)
    redis.call('HDEL', TRIES, place)
    local key, offset = bit_of(source, ARGV[i + 1])
    redis.call('SETBIT', key, offset, 1)
    redis.call('SADD', base .. ':x:' .. source, ARGV[i + 1])
    if from == DEAD then
      redis.call('HDEL', WHY, place)
      redis.call('HDEL', ANSWERS, place)
      count(source, 'd', -1)
    else
      leave(place, ARGV[1])
      count(source, 'w', -1)
    end
    redis.call('HDEL', PARTITION, place)
    count(source, 'x', 1)
    number = number + 1
  end
end
close_books()
return number
