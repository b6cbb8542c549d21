-- Which numbers are neither settled, waiting nor dead. ARGV: source, numbers. Answers the numbers.
local unknown = {}
for i = 2, #ARGV do
  local key, offset = bit_of(ARGV[1], ARGV[i])
  if redis.call('GETBIT', key, offset) == 0 and not where(ARGV[1] .. ':' .. ARGV[i]) then
    unknown[#unknown + 1] = ARGV[i]
  end
end
return unknown
