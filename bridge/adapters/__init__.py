"""The only rooms that know a store's or a broker's library: everything above them sees protocols."""
