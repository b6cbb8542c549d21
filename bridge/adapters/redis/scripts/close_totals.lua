-- The totals with this id were told. ARGV: id.
local open = base .. ':open'
if redis.call('HGET', open, 'id') == ARGV[1] then redis.call('DEL', open) end
return 1
