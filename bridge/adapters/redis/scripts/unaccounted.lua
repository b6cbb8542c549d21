-- Which numbers are neither settled, waiting nor dead. ARGV: source, numbers. Answers the numbers.
if #ARGV < 2 then return {} end
local places, known, unknown = {}, {}, {}
for i = 2, #ARGV do places[i - 1] = ARGV[1] .. ':' .. ARGV[i] end
for _, key in ipairs({DUE, HELD, DEAD}) do
  for i, score in ipairs(redis.call('ZMSCORE', key, unpack(places))) do known[i] = known[i] or score end
end
for i = 2, #ARGV do
  if not known[i - 1] then
    local key, offset = bit_of(ARGV[1], ARGV[i])
    if redis.call('GETBIT', key, offset) == 0 then unknown[#unknown + 1] = ARGV[i] end
  end
end
return unknown
