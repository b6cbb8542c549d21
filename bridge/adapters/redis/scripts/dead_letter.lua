-- Give up on one. ARGV: now, source, number, reason, attempt or '', answer or ''. Answers how many behind it became due.
-- It keeps its partition's name, to join its end again should it be redriven.
local place = ARGV[2] .. ':' .. ARGV[3]
local from = where(place)
if not from or from == DEAD then return 0 end
redis.call('ZREM', from, place)
redis.call('ZADD', DEAD, ARGV[1], place)
redis.call('HSET', WHY, place, ARGV[4])
tried(place, ARGV[5])
if ARGV[6] == '' then redis.call('HDEL', ANSWERS, place) else redis.call('HSET', ANSWERS, place, ARGV[6]) end
count(ARGV[2], 'w', -1)
count(ARGV[2], 'd', 1)
local behind = leave(place, ARGV[1])
close_books()
return behind and 1 or 0
