-- Make settled or unknown ones due once more. ARGV: due; then source, number, partition of each. Answers how many.
local number = 0
for i = 2, #ARGV, 3 do
  local source, place = ARGV[i], ARGV[i] .. ':' .. ARGV[i + 1]
  if not where(place) then
    enter(place, ARGV[i + 2], ARGV[1], ARGV[1])
    local key, offset = bit_of(source, ARGV[i + 1])
    if redis.call('SETBIT', key, offset, 0) == 1 then
      local column = redis.call('SREM', base .. ':x:' .. source, ARGV[i + 1]) == 1 and 'x' or 't'
      local filtered = filtered_bit_of(source, ARGV[i + 1])
      if redis.call('GETBIT', filtered, offset) == 1 then
        redis.call('SETBIT', filtered, offset, 0)
        column = 'f'
      end
      local record = redis.call('ZRANGEBYSCORE', unsent_of(source), ARGV[i + 1], ARGV[i + 1])[1]
      if record then
        redis.call('ZREM', unsent_of(source), record)
        if string.find(record, ' expired ', 1, true) then column = 'e' end
      end
      count(source, column, -1)
    end
    count(source, 'w', 1)
    number = number + 1
  end
end
close_books()
return number
