-- The sink's filter did not select these. ARGV: source and number of each. Answers how many were unknown so far.
local number = 0
for i = 1, #ARGV, 2 do
  local source, seq = ARGV[i], ARGV[i + 1]
  local key, offset = bit_of(source, seq)
  if not where(source .. ':' .. seq) and redis.call('SETBIT', key, offset, 1) == 0 then
    redis.call('SETBIT', filtered_bit_of(source, seq), offset, 1)
    count(source, 'f', 1)
    number = number + 1
  end
end
close_books()
return number
