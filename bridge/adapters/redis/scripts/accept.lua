-- Accept what is unknown so far. ARGV: due, due of what is held in a partition; then source, number, partition of each.
-- Answers the indexes (from 0) of those that are due, and how many were new.
local places = {}
for i = 3, #ARGV, 3 do places[#places + 1] = ARGV[i] .. ':' .. ARGV[i + 1] end
local due = redis.call('ZMSCORE', DUE, unpack(places))
local held = redis.call('ZMSCORE', HELD, unpack(places))
local dead = redis.call('ZMSCORE', DEAD, unpack(places))
local ready, new, seen = {}, 0, {}
for n, place in ipairs(places) do
  local source, seq, partition = ARGV[3 * n], ARGV[3 * n + 1], ARGV[3 * n + 2]
  if not (due[n] or held[n] or dead[n] or seen[place]) then
    seen[place] = true
    local key, offset = bit_of(source, seq)
    if redis.call('GETBIT', key, offset) == 0 then
      new = new + 1
      count(source, 'w', 1)
      if enter(place, partition, ARGV[1], ARGV[2]) then ready[#ready + 1] = n - 1 end
    end
  end
end
close_books()
return {new, ready}
