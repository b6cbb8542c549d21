-- The endpoint accepted these. ARGV: now; then source and number of each. Answers how many behind them became due.
local places = {}
for i = 2, #ARGV, 2 do places[#places + 1] = ARGV[i] .. ':' .. ARGV[i + 1] end
local due = redis.call('ZMSCORE', DUE, unpack(places))
redis.call('ZREM', DUE, unpack(places))
redis.call('HDEL', TRIES, unpack(places))
local partitioned = redis.call('EXISTS', PARTITION) == 1
local freed, number = {}, 0
for n, place in ipairs(places) do
  local source = ARGV[2 * n]
  local key, offset = bit_of(source, ARGV[2 * n + 1])
  if redis.call('SETBIT', key, offset, 1) == 0 then
    local from = due[n] and DUE or where(place)
    count(source, 't', 1)
    if from then count(source, from == DEAD and 'd' or 'w', -1) end
    if from and not due[n] then redis.call('ZREM', from, place) end
    if from == DEAD then
      redis.call('HDEL', WHY, place)
      redis.call('HDEL', ANSWERS, place)
    end
    if freed[place] then number = number - 1 end
    if partitioned then
      local behind = from ~= DEAD and leave(place, ARGV[1])
      redis.call('HDEL', PARTITION, place)
      if behind then
        freed[behind] = true
        number = number + 1
      end
    end
  end
end
close_books()
return number
