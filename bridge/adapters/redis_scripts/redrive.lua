-- Make dead or waiting ones due, their tries forgotten. ARGV: due; then source and number of each. Answers how many.
local number = 0
for i = 2, #ARGV, 2 do
  local source, place = ARGV[i], ARGV[i] .. ':' .. ARGV[i + 1]
  local from = where(place)
  if from then redis.call('HDEL', TRIES, place) end
  if from == DEAD then
    enter(place, redis.call('HGET', LANE, place) or '', ARGV[1], ARGV[1])
    redis.call('ZREM', DEAD, place)
    redis.call('HDEL', WHY, place)
    count(source, 'd', -1)
    count(source, 'w', 1)
  elseif from then
    redis.call('ZADD', from, ARGV[1], place)
  end
  if from then number = number + 1 end
end
close_books()
return number
