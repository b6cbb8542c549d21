"""The forms that come with the bridge, a file each."""
