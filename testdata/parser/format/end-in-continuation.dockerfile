
# escape=`
FROM a
RUN a \
  # still here