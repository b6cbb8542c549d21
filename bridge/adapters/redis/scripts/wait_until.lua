-- Have claimed ones wait, each until its time. ARGV: place and time of each. What is not due by itself is left alone.
for i = 1, #ARGV, 2 do
  if redis.call('ZREM', DUE, ARGV[i]) == 1 then redis.call('ZADD', DUE, ARGV[i + 1], ARGV[i]) end
end
return 1
