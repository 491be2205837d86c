# stray
#
# out is the result

# of all
  # indented
FROM a AS out
# check=skip=JSONArgsRecommended
CMD a
