"""The only packages that import a store's or a broker's library; everything above them sees protocols."""
