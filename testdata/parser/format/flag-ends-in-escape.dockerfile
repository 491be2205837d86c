from a
RUN --network=none\
#["
\ \
# c