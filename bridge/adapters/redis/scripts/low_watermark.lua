-- Raise a low watermark, never lower it. ARGV: source, number.
if tonumber(ARGV[2]) > tonumber(redis.call('HGET', base .. ':floor', ARGV[1]) or 0) then
  redis.call('HDEL', base .. ':floor', ARGV[1])
  redis.call('HSET', base .. ':floor', ARGV[1], ARGV[2])
end
return 1
