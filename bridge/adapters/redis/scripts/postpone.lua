-- Wait until a later time. ARGV: place, due, attempt or ''.
for _, key in ipairs({DUE, HELD}) do
  if redis.call('ZSCORE', key, ARGV[1]) then
    redis.call('ZREM', key, ARGV[1])
    redis.call('ZADD', key, ARGV[2], ARGV[1])
    tried(ARGV[1], ARGV[3])
  end
end
return 1
