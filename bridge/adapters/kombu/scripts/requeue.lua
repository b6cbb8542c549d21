-- Every script of a consumer begins with this function: it requeues the unacknowledged messages of one consumer.
-- A consumer's messages are in a hash by tag and, between a blocking move and the next claim, in a list. The message that
-- was claimed first goes where it is popped first. Returns how many messages of the hash went back.
-- Every script writes a removal first, even one that removes nothing: a server without memory allows that, and then lets
-- the script finish. Otherwise nobody could empty the queues of such a server.
local function requeue(queue, unacked, arriving)
  for _, payload in ipairs(redis.call('LRANGE', arriving, 0, -1)) do redis.call('RPUSH', queue, payload) end
  local tags = redis.call('HKEYS', unacked)
  table.sort(tags, function(a, b) return tonumber(a) > tonumber(b) end)
  for _, tag in ipairs(tags) do redis.call('RPUSH', queue, redis.call('HGET', unacked, tag)) end
  redis.call('DEL', unacked, arriving)
  return #tags
end
