-- Note that an event is finished, then count a try of another one.
-- KEYS: the queue's finished ids by time, its tries by id.
-- ARGV: the finished id or '', the id to try or '', for how many ms a finished id is kept, how many are kept.
-- Returns the number of the try; 0 if that event is finished already.
local finished, tries = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = now - tonumber(ARGV[3])
if ARGV[1] ~= '' then
  redis.call('HDEL', tries, ARGV[1])
  redis.call('ZADD', finished, now, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', finished, '-inf', oldest)
  redis.call('ZREMRANGEBYRANK', finished, 0, -1 - tonumber(ARGV[4]))
end
if ARGV[2] == '' then return 0 end
local since = redis.call('ZSCORE', finished, ARGV[2])
if since and tonumber(since) > oldest then return 0 end
return redis.call('HINCRBY', tries, ARGV[2], 1)
