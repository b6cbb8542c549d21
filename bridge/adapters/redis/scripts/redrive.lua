-- Make dead or waiting ones due, their tries forgotten. ARGV: due, until when one that is due later keeps its time (it may be
-- in somebody's hands); then source and number of each. Answers how many.
local number = 0
for i = 3, #ARGV, 2 do
  local source, place = ARGV[i], ARGV[i] .. ':' .. ARGV[i + 1]
  local from = where(place)
  if from then redis.call('HDEL', TRIES, place) end
  if from == DEAD then
    enter(place, redis.call('HGET', PARTITION, place) or '', ARGV[1], ARGV[1])
    redis.call('ZREM', DEAD, place)
    redis.call('HDEL', WHY, place)
    redis.call('HDEL', ANSWERS, place)
    count(source, 'd', -1)
    count(source, 'w', 1)
  elseif from then
    local due = tonumber(redis.call('ZSCORE', from, place))
    if from == HELD or due <= tonumber(ARGV[1]) or due > tonumber(ARGV[2]) then
      redis.call('ZADD', from, ARGV[1], place)
    end
  end
  if from then number = number + 1 end
end
close_books()
return number
