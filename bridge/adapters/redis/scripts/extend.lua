-- Hold claims until a time. ARGV: until, places. What is not waiting any more is left alone.
local due = redis.call('ZMSCORE', DUE, unpack(ARGV, 2))
redis.call('ZREM', DUE, unpack(ARGV, 2))
for n, held in ipairs(due) do
  if held then redis.call('ZADD', DUE, ARGV[1], ARGV[n + 1]) end
end
return 1
